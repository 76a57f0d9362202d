from pipelines.science.gates import Gate
from pipelines.science.page import render_page, text_tables
from tests.pipelines.science.made_runs import trial_run

GATES = [
    Gate(name="SA <knows>", required="≥ 0.80", measured="0.900", holds=True),
    Gate(name="Avg", required="0.20", measured="0.300", holds=False),
]
RUNS = [trial_run("sa", 0), trial_run("sa", 1), trial_run("one_worker", 0)]


def test_the_page_has_gates_methods_and_where_they_come_from():
    page = render_page(GATES, RUNS, [("command", "python -m jobs.science")])
    assert "1 of 2 gates hold" in page and "SA &lt;knows&gt;" in page and "python -m jobs.science" in page
    assert page.count("DOES NOT HOLD</td>") == 1 and page.count(">holds</td>") == 1
    assert "0.900 ± 0.001 (n=2)" in page and "<code>one_worker-0</code>" in page
    assert page.count("<td>one_worker</td>") == 1  # among the runs, not among the methods
    assert "http" not in page  # needs nothing else


def test_the_text_ends_with_the_gates():
    lines = text_tables(GATES, RUNS).splitlines()
    assert lines[0].split()[0] == "seen:" and "0.900 ± 0.001 (n=2)" in lines[1]
    assert lines[2].split()[:2] == ["chance", "0.025"]
    assert lines[-2].endswith("0.900     holds") and lines[-1].endswith("0.300     DOES NOT HOLD")
