"""How the page polls, and the policy that allows nothing but this."""

from base64 import b64encode
from hashlib import sha256

STYLE = """
:root { color-scheme: light dark;
  --ink: #1c2430; --soft: #566170; --line: #d5dbe3; --ground: #f6f8fa; --card: #fff; --link: #1857b6;
  --red: #b3261e; --amber: #8a5300; --green: #1a6b3c; --blue: #35568a; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e4e9ef; --soft: #9aa6b5; --line: #323d4a; --ground: #12171d; --card: #1a212a; --link: #8ab6f9;
  --red: #ff9389; --amber: #f3b95f; --green: #74d49b; --blue: #a5c1ee; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem clamp(.75rem, 3vw, 2rem) 3rem; background: var(--ground);
  color: var(--ink); font: 1rem/1.5 system-ui, "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
a { color: var(--link); }
h1, h2, h3, h4, p, dl, dd, ol, pre { margin: 0; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { font-size: 1.3rem; }
h3 { font-size: 1.1rem; line-height: 1.4; }
h4 { margin: 1rem 0 .25rem; font-size: .9rem; color: var(--soft); font-weight: 600; }
code, pre { font: .875em/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
header, footer { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; color: var(--soft); font-size: .875rem; }
header { margin-bottom: .75rem; }
section { margin-top: 2rem; }
.soft { color: var(--soft); }
.bad { color: var(--red); } .warn { color: var(--amber); } .good { color: var(--green); } .note { color: var(--blue); }
.verdict { margin: .25rem 0 0; font-size: 1.05rem; }
.card { margin-top: 1rem; padding: 1rem 1.15rem; background: var(--card); border: 1px solid var(--line);
  border-left: .3rem solid var(--line); border-radius: .4rem; }
.card:target { outline: .2rem solid var(--link); }
.card.critical, .card.down { border-left-color: var(--red); }
.card.warning { border-left-color: var(--amber); }
.card.notice { border-left-color: var(--blue); }
.badge { display: inline-block; padding: 0 .5em; border: 1px solid; border-radius: .3em; font-size: .8rem;
  font-weight: 700; text-transform: uppercase; letter-spacing: .04em; }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .75rem 1.25rem;
  margin: .75rem 0; }
.numbers dt { font-size: .8rem; color: var(--soft); }
.numbers dd { font-weight: 600; }
.numbers small { display: block; color: var(--soft); font-weight: 400; }
ol { padding-left: 1.4rem; max-width: 62rem; }
ol li + li { margin-top: .3rem; }
.prose { max-width: 62rem; }
.card > .soft:last-child { margin-top: .75rem; }
pre { padding: .6rem .75rem; background: var(--ground); border: 1px solid var(--line); border-radius: .3rem;
  overflow-x: auto; }
pre code { display: block; font-size: 1em; user-select: all; }
.wide { overflow-x: auto; margin-top: .5rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
caption { text-align: left; padding: .25rem 0; color: var(--soft); font-size: .9rem; font-weight: 600; }
th, td { padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { color: var(--soft); font-size: .8rem; font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 600; min-width: 7rem; }
.wide { overflow-wrap: break-word; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
td code { display: block; min-width: 16rem; overflow-wrap: anywhere; }
meter { width: 9rem; max-width: 100%; height: 1.1rem; vertical-align: middle; }
@media (max-width: 40rem) { meter { width: 4rem; } th, td { padding-right: .5rem; } tbody th { min-width: 5rem; } }
footer { margin-top: 2.5rem; padding-top: .75rem; border-top: 1px solid var(--line); }
"""

#: Nothing is loaded from anywhere and nothing runs: of all sources only our own style is allowed, by its hash.
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
