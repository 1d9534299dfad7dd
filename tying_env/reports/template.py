"""The look of the report: a jinja2 template. It needs nothing from outside the page."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1a1a1a; --soft: #5a5a5a; --line: #d5d5d5; --stripe: #f5f5f5; --note: #fff4d6;
}
@media (prefers-color-scheme: dark) {
  :root { --paper: #17191c; --ink: #e8e8e8; --soft: #a8a8a8; --line: #3a3d42; --stripe: #1f2226; --note: #3a3116; }
}
body {
  background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif;
  max-width: 72rem; margin: 0 auto; padding: 1.5rem;
}
h1 { line-height: 1.2; margin-bottom: 0.3rem; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); padding-bottom: 0.2rem; }
p, li { max-width: 48rem; }
.soft, figcaption, caption { color: var(--soft); }
/* A shadow at the edge shows that a table continues there. */
.table {
  overflow-x: auto; margin: 1rem 0; background:
    linear-gradient(to right, var(--paper) 30%, transparent) left / 3rem 100% no-repeat local,
    linear-gradient(to left, var(--paper) 30%, transparent) right / 3rem 100% no-repeat local,
    linear-gradient(to right, rgb(0 0 0 / 0.25), transparent) left / 0.8rem 100% no-repeat scroll,
    linear-gradient(to left, rgb(0 0 0 / 0.25), transparent) right / 0.8rem 100% no-repeat scroll;
}
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: 0.4rem; }
th, td { padding: 0.35rem 0.8rem 0.35rem 0; text-align: left; vertical-align: top; }
th { border-bottom: 2px solid var(--line); vertical-align: bottom; }
td { border-bottom: 1px solid var(--line); }
td.number { white-space: pre; }
td.path { overflow-wrap: anywhere; min-width: 24rem; }
.notes { background: var(--note); padding: 0.6rem 1rem; border-radius: 6px; }
.notes ul { margin: 0; padding-left: 1.2rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1.5rem; }
figure { margin: 0; break-inside: avoid; }
figure img { width: 100%; height: auto; background: #ffffff; border: 1px solid var(--line); border-radius: 6px; }
figcaption { font-size: 0.875rem; margin-top: 0.3rem; }
pre {
  background: var(--stripe); padding: 0.6rem 1rem; border-radius: 6px;
  white-space: pre-wrap; overflow-wrap: anywhere;
}
dt { font-weight: 600; margin-top: 0.6rem; }
dd { margin: 0; max-width: 48rem; }
@media print {
  :root { --paper: #ffffff; --ink: #000000; --soft: #444444; --line: #bbbbbb; --note: #ffffff; }
  body { font-size: 10pt; max-width: none; padding: 0; }
  table { font-size: 7.5pt; }
  td.number { white-space: pre-line; }
  td.path { min-width: 0; }
  .table { overflow: visible; }
  .pictures { grid-template-columns: 1fr 1fr; }
  .notes { border: 1px solid var(--line); }
}
"""

# What every page begins with: how tables and figures look, the title, what to beware of.
_HEAD = """
{%- macro show(table) %}
<div class="table"><table>
<caption>{{ table.title }}</caption>
<thead><tr>{% for heading in table.headings %}<th scope="col">{{ heading }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}
<tr>{% for cell in row %}<td{% if cell|length < 40 %} class="number"{% else %} class="path"{% endif %}>{{ cell }}</td>
{%- endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
{% endmacro %}
{%- macro gallery(pictures) %}
<div class="pictures">
{% for picture in pictures %}
<figure id="{{ picture.name }}">
{% if picture.source %}
<img src="{{ picture.source }}" alt="{{ picture.caption }}">
{% else %}
<p class="soft">Not drawn: {{ picture.name }}: {{ picture.problem }}.</p>
{% endif %}
<figcaption>{{ picture.caption }}</figcaption>
</figure>
{% endfor %}
</div>
{% endmacro -%}
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
<h1>{{ title }}</h1>
<p class="soft">{{ subtitle }}</p>
{% if notes %}
<div class="notes"><strong>Beware</strong><ul>
{% for note in notes %}
<li>{{ note }}</li>
{% endfor %}
</ul></div>
{% endif %}
"""

PAGE = (
    _HEAD
    + """<h2>Arms</h2>
{{ show(results) }}
{% if pairs %}
{{ show(pairs) }}
{% endif %}
{{ show(cost) }}
<h2>How to read this</h2>
<dl>
{% for term, meaning in glossary %}
<dt>{{ term }}</dt><dd>{{ meaning }}</dd>
{% endfor %}
</dl>
<h2>Arms side by side</h2>
{{ gallery(pictures) }}
{% for arm in arms %}
<h2>{{ arm.label }}, seed {{ arm.seed }}</h2>
<p class="soft">{{ arm.about }}</p>
{{ gallery(arm.pictures) }}
{% endfor %}
<h2>Runs</h2>
{{ show(runs) }}
<h2>Settings</h2>
{% if varying.rows %}
{{ show(varying) }}
{% endif %}
{{ show(common) }}
</body>
</html>
"""
)

# Of a sweep: tying_env.reports.sweep_page.
SWEEP_PAGE = (
    _HEAD
    + """<h2>The best trial</h2>
{{ show(best) }}
<pre>{{ commands }}</pre>
<h2>How to read this</h2>
<dl>
{% for term, meaning in glossary %}
<dt>{{ term }}</dt><dd>{{ meaning }}</dd>
{% endfor %}
</dl>
<h2>Figures</h2>
{{ gallery(pictures) }}
<h2>Trials</h2>
{{ show(trials) }}
<h2>Settings</h2>
{{ show(searched) }}
{{ show(common) }}
</body>
</html>
"""
)

# Of texts, figures and tables, one after the other.
TABLES_PAGE = (
    _HEAD
    + """{% for paragraph in paragraphs %}
<p>{{ paragraph }}</p>
{% endfor %}
<pre>{{ commands }}</pre>
{{ gallery(pictures) }}
{% for table in tables %}
{{ show(table) }}
{% endfor %}
</body>
</html>
"""
)
