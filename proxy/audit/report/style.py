"""How the report looks, on a screen by day and by night, and on paper. One style sheet, allowed by its hash.

Colours are Okabe and Ito's, which colour-blind readers tell apart; every series has a pattern or a shape as well.
"""

import base64
from hashlib import sha256

SERIES = 7  # fills that differ in colour and in pattern

STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--paper:#fff;--card:#f6f8fa;--good:#00664f;
--bad:#a83200;--warn:#7a5200;--c0:#0072b2;--c1:#e69f00;--c2:#009e73;--c3:#d55e00;--c4:#b6568c;--c5:#4a9fd0;--c6:#6e7781}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9da7b3;--line:#3d444d;--paper:#0d1117;--card:#161b22;
--good:#3fd0a4;--bad:#ff9d6f;--warn:#f2c14e;--c0:#58b0e8;--c1:#f0b440;--c2:#2fc79b;--c3:#ff8647;--c4:#e39ac6;
--c5:#8ccbf0;--c6:#a0a8b0}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:70rem;padding:1.5rem;font:16px/1.5 system-ui,sans-serif;color:var(--ink);
background:var(--paper)}
h1{font-size:1.7rem;margin:0}h2{font-size:1.25rem;margin:2.5rem 0 .5rem;border-top:1px solid var(--line);
padding-top:1rem}h3{font-size:1rem;margin:1rem 0 .3rem}
p{max-width:46rem;margin:.5rem 0}.soft{color:var(--soft)}
a{color:inherit}a:focus-visible,summary:focus-visible,[tabindex]:focus-visible{outline:3px solid var(--c0);
outline-offset:2px}
.skip{position:absolute;left:-99rem}.skip:focus{left:1rem}
nav ul{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;list-style:none;padding:0;margin:1rem 0;font-size:.9rem}
.verdict{border:2px solid;border-radius:.5rem;padding:.8rem 1rem;margin:1rem 0;font-weight:600}
.verdict.good{border-color:var(--good);color:var(--good)}.verdict.bad{border-color:var(--bad);color:var(--bad)}
.verdict.warn{border-color:var(--warn);color:var(--warn)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.7rem;margin:1rem 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem}
.tile b{display:block;font-size:1.5rem;line-height:1.2;font-variant-numeric:tabular-nums}
.tile span{font-size:.85rem;color:var(--soft)}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(20rem,1fr));gap:1rem}
figure{margin:.6rem 0}figcaption{font-size:.9rem;color:var(--soft)}
svg.plot{display:block;width:100%;height:auto;background:var(--card);border:1px solid var(--line);border-radius:.4rem}
svg.defs{position:absolute;width:0;height:0}
svg.key{width:1.6rem;height:1rem;vertical-align:-.15rem;margin-right:.35rem}
svg text{font:12px system-ui,sans-serif;fill:var(--soft)}svg text.strong{fill:var(--ink);font-weight:600}
.grid{stroke:var(--line);stroke-width:1}.limit{stroke:var(--ink);stroke-width:2;stroke-dasharray:5 4}
.l0{stroke:var(--c0)}.l1{stroke:var(--c3)}.l2{stroke:var(--c2)}.course{fill:none;stroke-width:2}
.s0{fill:var(--c0)}.s1{fill:var(--c1)}.s2{fill:var(--c2)}.s3{fill:var(--c3)}.s4{fill:var(--c4)}.s5{fill:var(--c5)}
.s6{fill:var(--c6)}.mark{stroke:var(--paper);stroke-width:1.6;fill:none}.dot{fill:var(--paper)}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;list-style:none;padding:0;font-size:.9rem;margin:.4rem 0}
details{margin:.4rem 0}summary{cursor:pointer;color:var(--soft);font-size:.95rem}
.wide{overflow-x:auto;margin:.4rem 0}
table{border-collapse:collapse;font-size:.9rem;width:100%}caption{text-align:left;color:var(--soft);padding:.3rem 0}
th,td{text-align:left;padding:.25rem 1rem .25rem 0;border-bottom:1px solid var(--line);vertical-align:top}
.number{text-align:right;padding-right:1.4rem;font-variant-numeric:tabular-nums}
code,pre{font:.82rem/1.45 ui-monospace,monospace}code{overflow-wrap:anywhere}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--card);border:1px solid var(--line);padding:.6rem;
border-radius:.4rem}
@media print{body{max-width:none;padding:0;font-size:10pt;color:#000;background:#fff}nav,.skip{display:none}
h2,h3,figure,tr,.tile{break-inside:avoid}h2,h3{break-after:avoid}details::details-content{content-visibility:visible;
height:auto}*{print-color-adjust:exact}.wide{overflow:visible}}
"""

STYLE_HASH = "sha256-" + base64.b64encode(sha256(STYLE.encode()).digest()).decode()

# CSP level 3: nothing may be loaded, sent, framed or run; the one style sheet is named by its hash.
POLICY = f"default-src 'none'; style-src '{STYLE_HASH}'; base-uri 'none'; form-action 'none'"
