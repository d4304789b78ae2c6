"""How the report looks, on a screen by day and by night, and on paper. One style sheet, allowed by its hash.

Colours are Okabe and Ito's, which colour-blind readers tell apart; every series has a pattern or a shape as well.
"""

import base64
from hashlib import sha256

SERIES = 7  # fills that differ in colour and in pattern

STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--line:#d8dee4;--paper:#fff;--card:#f6f8fa;--good:#00664f;
--bad:#a83200;--warn:#7a5200;--c0:#0072b2;--c1:#e69f00;--c2:#009e73;--c3:#d55e00;--c4:#b6568c;--c5:#4a9fd0;--c6:#6e7781}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9da7b3;--line:#3d444d;--paper:#0d1117;--card:#161b22;
--good:#3fd0a4;--bad:#ff9d6f;--warn:#f2c14e;--c0:#58b0e8;--c1:#f0b440;--c2:#2fc79b;--c3:#ff8647;--c4:#e39ac6;
--c5:#8ccbf0;--c6:#a0a8b0}}
*{box-sizing:border-box}html{scroll-padding-top:1rem}
body{margin:0 auto;max-width:82rem;padding:2rem 1.5rem 4rem;font:16px/1.55 system-ui,sans-serif;color:var(--ink);
background:var(--paper)}
header{border-bottom:3px solid var(--ink);padding-bottom:1rem}main{min-width:0}
h1{font-size:2rem;line-height:1.2;letter-spacing:-.01em;margin:0 0 .8rem}
h2{font-size:1.35rem;line-height:1.3;margin:0}h3{font-size:1rem;margin:1rem 0 .3rem}
section{margin-top:2rem}section+section{border-top:1px solid var(--line);margin-top:2.5rem;padding-top:2rem}
p{max-width:46rem;margin:.6rem 0}.soft,.question{color:var(--soft)}.question{margin:.1rem 0 1rem}
dl{display:flex;flex-wrap:wrap;gap:.3rem 2.5rem;margin:0}dt{font-size:.8rem;color:var(--soft)}dd{margin:0;
font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
a{color:inherit}a:focus-visible,summary:focus-visible,[tabindex]:focus-visible{outline:3px solid var(--c0);
outline-offset:2px}
.skip{position:absolute;left:-99rem}.skip:focus{left:1rem}
nav ul{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;list-style:none;padding:0;margin:1rem 0 0;font-size:.9rem}
nav a{text-decoration:none;color:var(--soft)}nav a:hover{color:var(--ink);text-decoration:underline}
@media (min-width:66rem){body{display:grid;grid-template-columns:13rem minmax(0,1fr);column-gap:3rem}
header{grid-column:1/-1}nav ul{flex-direction:column;position:sticky;top:2rem;margin-top:2rem;gap:.45rem}}
.verdict{display:flex;gap:1rem;align-items:start;border:1px solid;border-left-width:.5rem;border-radius:.4rem;
padding:1rem 1.2rem;margin:0 0 1.2rem;background:var(--card)}
.verdict p{margin:.15rem 0;font-size:1.15rem;font-weight:600}.verdict ul{margin:.5rem 0 0;padding-left:1.2rem;
color:var(--ink)}.sign{flex:none;display:grid;place-items:center;width:2.1rem;height:2.1rem;border:2px solid;
border-radius:50%;font-weight:700;line-height:1}
.verdict.good{border-color:var(--good);color:var(--good)}.verdict.bad{border-color:var(--bad);color:var(--bad)}
.verdict.warn{border-color:var(--warn);color:var(--warn)}
.tiles{display:grid;grid-template-columns:repeat(4,1fr);gap:.7rem;margin:1.4rem 0}
@media (max-width:46rem){.tiles{grid-template-columns:repeat(2,1fr)}}
.tile{background:var(--card);border:1px solid var(--line);border-radius:.4rem;padding:.7rem .9rem;text-decoration:none}
.tile:hover{border-color:var(--ink)}.tile.look{border-left:.35rem solid var(--warn)}.tile.none b{color:var(--soft)}
.tile b{display:block;font-size:1.7rem;line-height:1.25;font-variant-numeric:tabular-nums}
.tile span{display:block;font-size:.85rem;line-height:1.35;color:var(--soft)}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(19rem,1fr));gap:1.4rem 1.2rem;margin:1rem 0}
figure{margin:.8rem 0}.plots figure{margin:0}figcaption{font-size:.85rem;color:var(--soft);line-height:1.4;
margin-bottom:.35rem}figcaption b,figcaption code{display:block}figcaption b{font-size:.95rem;color:var(--ink)}
svg.plot{display:block;width:100%;height:auto;background:var(--card);border:1px solid var(--line);border-radius:.4rem}
svg.defs{position:absolute;width:0;height:0}
svg.key{width:1.6rem;height:1rem;vertical-align:-.15rem;margin-right:.45rem}
svg text{font:12px system-ui,sans-serif;fill:var(--soft)}svg text.strong{fill:var(--ink);font-weight:600}
.grid{stroke:var(--line);stroke-width:1}.limit{stroke:var(--ink);stroke-width:2;stroke-dasharray:5 4}
.l0{stroke:var(--c0)}.l1{stroke:var(--c3)}.l2{stroke:var(--c2)}.course{fill:none;stroke-width:2}.tick{stroke-width:1}
.s0{fill:var(--c0)}.s1{fill:var(--c1)}.s2{fill:var(--c2)}.s3{fill:var(--c3)}.s4{fill:var(--c4)}.s5{fill:var(--c5)}
.s6{fill:var(--c6)}.mark{stroke:var(--paper);stroke-width:1.6;fill:none}.dot{fill:var(--paper)}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1.4rem;list-style:none;padding:0;font-size:.9rem;margin:.6rem 0}
details{margin:.5rem 0}summary{cursor:pointer;color:var(--soft);font-size:.9rem}summary:hover{color:var(--ink)}
.wide{overflow-x:auto;margin:1rem 0}
table{border-collapse:collapse;font-size:.9rem;min-width:min(100%,34rem)}
caption{text-align:left;font-weight:600;padding:.3rem 0}
th,td{text-align:left;padding:.35rem 1.8rem .35rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--soft);font-size:.8rem;font-weight:600;border-bottom:2px solid var(--line);vertical-align:bottom}
th:last-child,td:last-child{padding-right:.2rem}tbody tr:hover{background:var(--card)}td svg{vertical-align:-.1rem}
.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
code,pre{font:.82rem/1.45 ui-monospace,monospace}code{overflow-wrap:break-word}
@media (min-width:46rem){p code{white-space:nowrap}}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--card);border:1px solid var(--line);padding:.6rem;
border-radius:.4rem}
@page{margin:16mm}
@media print{:root{--ink:#000;--soft:#444;--line:#bbb;--paper:#fff;--card:#fff;--good:#00664f;--bad:#a83200;
--warn:#7a5200;--c0:#0072b2;--c1:#e69f00;--c2:#009e73;--c3:#d55e00;--c4:#b6568c;--c5:#4a9fd0;--c6:#6e7781}
body{display:block;max-width:none;padding:0;font-size:9.5pt}nav,.skip{display:none}pre{font-size:6.5pt}
.tile{padding:.4rem .6rem}.plots{grid-template-columns:repeat(2,1fr)}table{font-size:8pt}
thead{display:table-header-group}
h2,h3,svg,tr,.tile,.verdict,.legend{break-inside:avoid}h2,h3,.question,caption,figcaption,summary{break-after:avoid}
details::details-content{content-visibility:visible;height:auto}summary{list-style:none}
summary::-webkit-details-marker{display:none}*{print-color-adjust:exact}.wide{overflow:visible}#sample pre{display:none}
#sample summary::after{content:" (in the file, not on paper)"}}
"""

STYLE_HASH = "sha256-" + base64.b64encode(sha256(STYLE.encode()).digest()).decode()

# CSP level 3: nothing may be loaded, sent, framed or run; the one style sheet is named by its hash.
POLICY = f"default-src 'none'; style-src '{STYLE_HASH}'; base-uri 'none'; form-action 'none'"
