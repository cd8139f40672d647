"""Style and script of the report page, which loads nothing from anywhere."""

PLOT_STYLE = """
:root { --ink: #1c2330; --soft: #667085; --line: #e4e7ec; --paper: #ffffff; --shade: #f6f7f9; --accent: #2457d6;
  --bar: #b9c6e4; --good: #18794e; --bad: #c4320a; --c0: #6941c6; --c1: #c4660a; --c2: #667085; --c3: #2457d6;
  --c4: #0e8a84; --c5: #a3195b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #98a2b3; --line: #2c3442; --paper: #12161d;
  --shade: #1a202a; --accent: #7aa2ff; --bar: #3a4a6b; --good: #4cc38a; --bad: #ff8a5c; --c0: #b39df3; --c1: #f0a35e;
  --c2: #98a2b3; --c3: #7aa2ff; --c4: #4fd1c5; --c5: #f58bbb; } }
svg text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; fill: var(--ink); }
svg .tick { fill: var(--soft); font-size: 12px; }
svg .strong { font-weight: 650; }
.grid { stroke: var(--line); fill: none; }
rect.bar { fill: var(--bar); } rect.bar.strong { fill: var(--accent); }
.whisker { stroke: var(--ink); stroke-width: 1.2; fill: none; opacity: .6; }
.line { fill: none; stroke-width: 1.8; } .line.strong { stroke-width: 3; }
.line.c0 { stroke: var(--c0); } .line.c1 { stroke: var(--c1); } .line.c2 { stroke: var(--c2); }
.line.c3 { stroke: var(--c3); } .line.c4 { stroke: var(--c4); } .line.c5 { stroke: var(--c5); }
svg text.c0 { fill: var(--c0); } svg text.c1 { fill: var(--c1); } svg text.c2 { fill: var(--c2); }
svg text.c3 { fill: var(--c3); } svg text.c4 { fill: var(--c4); } svg text.c5 { fill: var(--c5); }
.p0 { fill: var(--accent); } .p1 { fill: var(--c0); } .p2 { fill: var(--c1); } .p3 { fill: var(--soft); }
svg .inside { fill: var(--paper); font-weight: 600; text-anchor: middle; }
.gain { fill: var(--good); } .loss { fill: var(--bad); }
"""

STYLE = (
    PLOT_STYLE
    + """
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 36px 24px 80px; max-width: 960px; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 27px; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 18px; margin: 44px 0 4px; }
p { margin: 4px 0 12px; max-width: 92ch; }
.soft { color: var(--soft); font-size: 13px; }
.tiles { display: flex; gap: 12px; flex-wrap: wrap; margin: 22px 0 8px; }
.tile { flex: 1 1 130px; background: var(--shade); border-radius: 8px; padding: 12px 16px; }
.tile b { display: block; font-size: 25px; letter-spacing: -.02em; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 10px; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 500; }
th:first-child, td:first-child, .text { text-align: left; }
.served { background: var(--shade); }
td.best { font-weight: 650; }
.good { color: var(--good); } .bad { color: var(--bad); }
svg { width: 100%; height: auto; display: block; margin: 10px 0 4px; overflow: visible; }
details { border: 1px solid var(--line); border-radius: 8px; padding: 9px 14px; margin: 8px 0; }
details[open] { background: var(--shade); }
summary { cursor: pointer; }
summary .soft { float: right; margin-left: 14px; }
ol { margin: 6px 0 6px; padding-left: 22px; } li { margin: 5px 0; }
input { font: inherit; color: inherit; background: var(--shade); border: 1px solid var(--line); border-radius: 8px;
  padding: 7px 12px; width: 100%; margin: 8px 0; }
#questions th { cursor: pointer; position: sticky; top: 0; background: var(--paper); white-space: nowrap; }
#questions th[data-order]::after { content: " \\2193"; } #questions th[data-order="up"]::after { content: " \\2191"; }
#questions td.text { max-width: 420px; }
.miss { color: var(--bad); }
code { font-size: 13px; background: var(--shade); padding: 1px 5px; border-radius: 4px; overflow-wrap: anywhere; }
@media print { input, .hint { display: none; } }
"""
)

SCRIPT = """
const body = document.querySelector('#questions tbody'), rows = [...body.rows];
document.querySelector('#filter').addEventListener('input', event => {
  const words = event.target.value.toLowerCase();
  for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(words);
});
document.querySelectorAll('#questions th').forEach((head, i, heads) => head.addEventListener('click', () => {
  const order = head.dataset.order === 'down' ? 'up' : 'down';
  heads.forEach(other => delete other.dataset.order);
  head.dataset.order = order;
  const value = row => row.cells[i].dataset.value ?? row.cells[i].textContent;
  rows.sort((a, b) => {
    const [x, y] = [value(a), value(b)], by = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
    return order === 'down' ? by : -by;
  });
  body.append(...rows);
}));
"""
