"""What several workers say, as one."""

from proxy.admin import Check, Health, Readiness
from proxy.app.merging import merged_metrics, merged_readiness

FINE = Readiness("p", draining=False, checks={"trail": Check(Health.OK, "fine"), "store": Check(Health.OK)})
BAD = Readiness(
    "p", draining=False, checks={"trail": Check(Health.FAILED, "full"), "store": Check(Health.WARNING, "x")}
)


def test_the_worst_of_each_check_with_its_worker() -> None:
    merged = merged_readiness({1: FINE, 2: BAD}, draining=False)
    assert merged.checks["trail"] == Check(Health.FAILED, "worker 2: full")
    assert merged.checks["store"] == Check(Health.WARNING, "worker 2: x")
    assert not merged.ready


def test_one_of_two_is_enough_and_none_is_not() -> None:
    one = merged_readiness({1: FINE, 2: None}, draining=False)
    assert (one.ready, one.checks["workers"]) == (True, Check(Health.WARNING, "not serving: 2"))
    assert not merged_readiness({1: None, 2: None}, draining=False).ready
    assert not merged_readiness({1: FINE}, draining=True).ready


def test_two_policies_are_a_warning() -> None:
    other = Readiness("q", draining=False, checks={})
    assert merged_readiness({1: FINE, 2: other}, draining=False).checks["policies"].health is Health.WARNING


def test_metrics_get_a_label_and_families_stay_together() -> None:
    first = b'# HELP a Words of a.\n# TYPE a counter\na_total{x="# HELP \\"q\\" {1}"} 1.0\n'
    page = first + b"# HELP b B.\n# TYPE b gauge\nb 2.0\n"
    assert merged_metrics({1: page, 2: page}) == (
        b"# HELP a Words of a.\n# TYPE a counter\n"
        b'a_total{x="# HELP \\"q\\" {1}",worker="1"} 1.0\na_total{x="# HELP \\"q\\" {1}",worker="2"} 1.0\n'
        b'# HELP b B.\n# TYPE b gauge\nb{worker="1"} 2.0\nb{worker="2"} 2.0\n'
    )
    assert merged_metrics({}) == b""
