"""The page's style sheet."""

CSS = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#5a6472;--line:#d5dae1;--paper:#fff;--band:#f5f7f9}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#a0a9b4;--line:#3a414a;--paper:#15181c;--band:#1e2328}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1160px;margin:0 auto;padding:32px 24px 48px}
h1{font-size:1.7rem;line-height:1.25;margin:0 0 .5rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.2rem 0 .6rem;padding-bottom:.3rem;border-bottom:1px solid var(--line)}
h3{font-size:1rem;margin:1.3rem 0 .4rem}
.verdict{font-size:1.15rem;margin:.2rem 0 .5rem}
.note{color:var(--soft);font-size:.875rem;max-width:60rem;margin:.5rem 0}
.wide{overflow-x:auto}
.check{margin:.4rem 0;padding-left:1.6rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{text-align:left;vertical-align:top;padding:.38rem .9rem .38rem 0;border-bottom:1px solid var(--line);font-weight:400}
thead th{color:var(--soft);font-size:.875rem;border-bottom-color:var(--soft)}
.numbers th+th,.numbers td{text-align:right;padding-left:1.3rem;white-space:nowrap}
.numbers tbody th{overflow-wrap:anywhere;min-width:9rem}
.numbers tbody tr:last-child>*{font-weight:600;border-bottom:0}
.run{font-size:.9rem}.run th{color:var(--soft);white-space:nowrap;padding-right:1.6rem}.run td{white-space:pre-line;overflow-wrap:anywhere}
.swatch{width:12px;height:12px;margin-right:.5em;vertical-align:-1px;overflow:visible}.swatch rect{stroke:#6b7280;stroke-width:1}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1.3rem;margin:.4rem 0;font-size:.875rem}
.key{width:28px;height:10px;margin-right:.5em}
figure{margin:0 0 1rem;break-inside:avoid}
figcaption{font-size:.875rem;margin-top:.15rem}
h2,h3,.legend{break-after:avoid}section>.note{break-before:avoid}
.views{display:grid;grid-template-columns:repeat(auto-fit,minmax(0,1fr));grid-auto-flow:column;grid-auto-columns:1fr;gap:10px}
.views p{margin:.1rem 0 0;color:var(--soft);font-size:.8rem;text-align:center}
.view{display:block;width:100%;max-height:460px;background:#000}
.view g{fill-rule:evenodd;stroke-linejoin:round}
.view .background{fill:#9aa0a6;fill-opacity:.16;stroke:#c9ced4;stroke-width:.8;stroke-dasharray:3 3}
.view .plain{stroke-opacity:0}
.halo{stroke:#000;stroke-opacity:.55;stroke-width:3.2}
.truth{stroke:#fff}
.view text{fill:#ffe9a8;font-size:14px;font-weight:600;text-anchor:middle;dominant-baseline:central;paint-order:stroke;stroke:#000;stroke-width:2.5px}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1.5rem}
.chart svg:not(.key){width:100%;height:auto;display:block}
.chart text{fill:var(--soft);font-size:12px}.chart .x{text-anchor:middle}.chart .y{text-anchor:end;dominant-baseline:central}
.grid{stroke:var(--line);stroke-width:1;fill:none}
.line{fill:none;stroke-width:2;stroke-linejoin:round}
@media print{
:root{--ink:#000;--soft:#444;--line:#bbb;--paper:#fff;color-scheme:light}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
main{padding:0;max-width:none}body{font-size:10.5pt}.wide{overflow:visible}.charts{grid-template-columns:1fr 1fr}tr{break-inside:avoid}
}
@media (max-width:600px){main{padding:20px 12px}}
"""
