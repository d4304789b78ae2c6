"""The tree against the published vectors of RFC 6962 (the tree of RFC 9162 is the same), and every small proof."""

import pytest

from proxy.audit.merkle import (
    EMPTY_ROOT,
    Tree,
    consistency_proof,
    consistent,
    included,
    inclusion_proof,
    leaf_hash,
    root_of,
)

INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAVES = [leaf_hash(bytes.fromhex(text)) for text in INPUTS]
MANY = [leaf_hash(bytes([number])) for number in range(20)]


def test_roots_of_the_published_vectors() -> None:
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert [root_of(LEAVES[:size]).hex() for size in range(1, 9)] == ROOTS


def test_a_published_inclusion_proof() -> None:
    proof = [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    assert [step.hex() for step in inclusion_proof(LEAVES, 5)] == proof


def test_a_published_consistency_proof() -> None:
    proof = [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    assert [step.hex() for step in consistency_proof(LEAVES, 6)] == proof


@pytest.mark.parametrize("size", range(1, len(MANY) + 1))
def test_every_inclusion_proof_holds_for_its_leaf_only(size: int) -> None:
    leaves = MANY[:size]
    root = root_of(leaves)
    for index in range(size):
        proof = inclusion_proof(leaves, index)
        assert included(leaves[index], index, size, proof, root)
        assert not included(MANY[(index + 1) % len(MANY)], index, size, proof, root)
        assert not included(leaves[index], index, size, [*proof, root], root)
        assert not included(leaves[index], index + size, size, proof, root)
        if proof:
            assert not included(leaves[index], index, size, proof[:-1], root)


@pytest.mark.parametrize("new", range(1, len(MANY) + 1))
def test_every_consistency_proof_holds_for_its_sizes_only(new: int) -> None:
    new_root = root_of(MANY[:new])
    for old in range(1, new + 1):
        proof, old_root = consistency_proof(MANY[:new], old), root_of(MANY[:old])
        assert consistent(old, new, proof, old_root, new_root)
        assert not consistent(old, new, proof, MANY[0][::-1], new_root)
        assert not consistent(old, new, proof, old_root, MANY[0][::-1])
        assert not consistent(old, new, [*proof, new_root], old_root, new_root)
        assert not consistent(0, new, proof, old_root, new_root)
        if proof:
            assert not consistent(old, new, proof[:-1], old_root, new_root)


@pytest.mark.parametrize("size", range(len(MANY) + 1))
def test_a_tree_goes_on_from_its_peaks(size: int) -> None:
    tree = Tree()
    for leaf in MANY[:size]:
        tree.add(leaf)
    again = Tree(size, tree.peaks)
    for leaf in MANY[size:]:
        again.add(leaf)
    assert again.root() == root_of(MANY)


def test_peaks_that_do_not_fit_the_size_are_refused() -> None:
    with pytest.raises(ValueError, match="peaks"):
        Tree(3, [EMPTY_ROOT])


def test_there_is_no_proof_of_what_is_not_there() -> None:
    with pytest.raises(ValueError, match="leaf"):
        inclusion_proof(MANY, len(MANY))
    with pytest.raises(ValueError, match="older"):
        consistency_proof(MANY, 0)
