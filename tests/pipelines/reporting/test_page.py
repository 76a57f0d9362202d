"""The page: every figure of the table, texts escaped, nothing from elsewhere; opened in Chromium where there is one."""

import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from infra.tracking import TrackingConfig
from pipelines.evaluation.page import breakable
from pipelines.reporting.checks import find_mismatches
from pipelines.reporting.comparison import compare
from pipelines.reporting.config import ReportConfig
from pipelines.reporting.methods import group_methods
from pipelines.reporting.page import Comparison, render_comparison
from pipelines.reporting.runs import UnevaluatedRun
from tests.pipelines.reporting.made_runs import MEAN_AP, RECALL, made_run

HOSTILE = "<img src=http://x onerror=alert(1)>"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CURVES = {
    "loss": {"train/loss/total": ([1, 2, 3], [3.0, 2.0, 1.0])},
    "collapse: unit_std": {"dev/hidden/unit_std": ([1, 3], [0.9, 0.8])},
}


def _run(number, **values):
    return made_run(f"{number:032d}", curves=CURVES, **values)


def _page(runs, command="python -m jobs.report", without=(), **changes):
    tracking = TrackingConfig(uri="http://me:hunter2@host:5000")
    config = ReportConfig(output_uri="out", experiment="e", on_mismatch="flag", tracking=tracking, **changes)
    methods = group_methods(runs, config)
    found = Comparison(methods, compare(methods, config), find_mismatches(methods, config), list(without))
    return render_comparison(found, config, command)


@pytest.fixture(scope="module")
def page():
    runs = [_run(1, method="flat", ranks=(2, 2, 1, 4), mean_ap=0.4, params={"model.levels": "1"})]
    runs += [
        _run(2 + seed, method="ours", seed=seed, ranks=(1, 1, 1, 4 - seed), mean_ap=0.4 + 0.1 * seed)
        for seed in (0, 1, 2)
    ]
    runs += [_run(9, method="other set", keys=["k0", "k1", "k2", "new"], params={"lr": "1"})]
    return _page(runs, baseline="flat", title="Ablation")


def _rows(page, heading):
    """The cells, as text, of the first table after a heading."""
    table = page[page.index(f">{heading}</h") :]
    table = table[table.index("<table") : table.index("</table>")]
    rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
    return [
        [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)]
        for row in rows
    ]


def test_the_table_by_hand(page):
    head, *body = _rows(page, "Methods and metrics")
    assert head == ["method", "n", "val/video/text_to_video/recall_at_1", "val/video/linear_probe/labels/mean_ap"]
    assert body == [
        ["flat (baseline)", "1", "0.250 ± -", "0.400 ± -"],
        ["ours", "3", "0.750 ± 0.000", "0.500 ± 0.100"],
        ["other set", "1", "0.500 ± -", "0.500 ± -"],
        ["raw", "", "0.250", "0.250"],
        ["chance", "", "0.250", "0.100"],
    ]


def test_differences_stand_beside_their_interval_or_the_reason(page):
    _, flat, ours, other = _rows(page, breakable(RECALL))
    assert flat[:3] == ["flat", "0.250 ± -", "1"]
    assert ours == ["ours", "0.750 ± 0.000", "3", "+0.500", "+0.000 to +1.000", "+200.0 %"]
    assert other[3] == "not the same samples"
    assert _rows(page, breakable(MEAN_AP))[0] == ["method", "mean ± std", "n", "relative"]
    assert "No interval: no mean over samples, or no values per sample." in page
    assert "10000 paired bootstrap resamples of the samples (seed 0)" in page


def test_provenance(page):
    for number in (1, 2, 3, 4, 9):
        assert f"<code>{number:032d}</code>" in page
    assert "<dd>" + "c" * 40 + "</dd>" in page and "/data/store, version 3, manifest " + "ab" * 32 in page
    assert _rows(page, "Settings that differ")[1:] == [
        ["lr", "(not set)", "(not set)", "1"],
        ["model.levels", "1", "(not set)", "(not set)"],
    ]
    assert "<dd>python -m jobs.report</dd>" in page
    assert "seed, output_uri" in page


def test_claims_are_said_to_be_not_comparable(page):
    rows = _rows(page, "Claims versus measured")[1:]
    assert len(rows) == 12
    assert all(row[4].startswith("not comparable: ") for row in rows)
    assert "ours: 0.500 ± 0.100, n=3" in rows[1][3]
    same = _page([_run(1, tags={"data.name": "activitynet-1.3"})])
    assert _rows(same, "Claims versus measured")[2][4] == "same data"


def test_a_page_of_hiervl_prints_hiervls_claims_alone():
    page = _page([_run(1, method="sa", params={"system": "hiervl"})])
    rows = _rows(page, "Claims versus measured")[1:]
    assert len(rows) == 6 and rows[0][1].startswith("EgoVLP 90.6/57.2") and rows[0][1].endswith("on Ego4D, EgoMCQ")
    assert all(row[4].startswith("not comparable: ") for row in rows)
    assert "published about HierVL" in page and "published about HierarchicalVLM" not in page


def test_the_page_needs_nothing_else(page):
    assert (
        re.findall(
            r"""(?:src|href|srcset|data|action)\s*=\s*["']?(?!#|["']#)[^\s>]*""", re.sub(r"data-label=", "", page)
        )
        == []
    )
    assert "<script" not in page and "@import" not in page and "url(" not in re.sub(r"url\(#", "", page)
    assert "light dark" in page and "@media print" in page and 'name="viewport"' in page
    # curves and monitor, bars and differences of recall, bars of mean AP, recall at k, AP per class of two methods
    assert page.count("<svg") == page.count("</svg>") == page.count("<figcaption>") == 2 + 2 + 1 + 1 + 2
    used = set(re.findall(r"(?:url\(|href=[\"'])#([^\"')]+)", page))
    assert used and all(page.count(f'id="{name}"') == 1 for name in used)


def test_hostile_names_stay_texts():
    without = [UnevaluatedRun("x", HOSTILE, HOSTILE, HOSTILE)]
    runs = [_run(1, method=HOSTILE, params={HOSTILE: "1"}), _run(2, method=f"{HOSTILE}2", tags={"git.commit": HOSTILE})]
    page = _page(runs, command=HOSTILE, without=without, title=HOSTILE, baseline=HOSTILE)
    assert "<img" not in page and page.count("&lt;img src=http://x") > 10


def test_passwords_do_not_reach_the_page():
    page = _page([_run(1)], command="python -m jobs.report tracking.uri=http://me:hunter2@host")
    assert "hunter2" not in page and page.count("http://***@host") == 2


def test_equal_runs_give_equal_bytes():
    runs = [_run(1, method="a"), _run(2, method="b", params={"lr": "1"})]
    assert _page(runs) == _page(runs)


def test_seeds_of_different_commits_and_alarms_are_named():
    loud = replace(_run(1), metrics={"alarm/unit_std": 1.0, "train/lr": 0.1})
    page = _page([loud, _run(2, seed=1, tags={"git.commit": "d" * 40})])
    assert "run 00000000: alarms went off, unit_std." in page
    assert "its runs are of different commits, cccccccccccc, dddddddddddd." in page


HARNESS = """<!doctype html><body><script>
const found = {}, page = PAGE;
for (const width of [380, 1280]) {
  const frame = document.createElement("iframe");
  frame.width = width; frame.height = 900; frame.srcdoc = page;
  frame.onload = () => {
    const root = frame.contentDocument.documentElement;
    const shown = [...root.querySelectorAll("svg, img")].filter(x => x.getBoundingClientRect().width > 50);
    found[width] = {inner: root.clientWidth, needed: root.scrollWidth, images: shown.length};
    if (Object.keys(found).length == 2) document.title = JSON.stringify(found);
  };
  document.body.append(frame);
}
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_it_reads_on_a_phone_and_a_desk(page, tmp_path):
    """Without a console message, without scrolling sideways, with every figure shown."""
    harness = tmp_path / "harness.html"
    harness.write_text(HARNESS.replace("PAGE", json.dumps(page).replace("</", "<\\/")), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=10000"]
    command = [CHROMIUM, *options, f"--user-data-dir={tmp_path}/profile", "--dump-dom", harness.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    found = json.loads(re.search(r"<title>(.*?)</title>", done.stdout)[1])
    assert found["380"]["inner"] <= 380 and found["1280"]["inner"] > 1200
    for width in ("380", "1280"):
        assert found[width]["needed"] <= found[width]["inner"]
        assert found[width]["images"] == page.count("<svg")
