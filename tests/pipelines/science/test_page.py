import re

from pipelines.science.gates import Gate
from pipelines.science.page import Background, render_page, text_tables
from tests.pipelines.science.made_runs import CHANCE, trial_run

GATES = [
    Gate(name="SA <knows>", required="≥ 0.80", measured="0.900", holds=True),
    Gate(name="Avg", required="0.20", measured="0.300", holds=False),
]
RUNS = [trial_run("sa", 0), trial_run("sa", 1), trial_run("wo_joint", 0), trial_run("one_worker", 0)]
LEAKS = {"seen": {"scene/easy": [0.19, 0.21], "words/order": [0.5, 0.5]}}


def page():
    facts = [("command", "python -m jobs.science")]
    return render_page(GATES, RUNS, Background(chance=CHANCE, leaks=LEAKS, facts=facts))


def rows(heading):
    """The cells, as text, of the first table after a heading."""
    table = page().partition(f"<h2>{heading}")[2].partition("</table>")[0]
    return [
        [" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
        for row in re.findall(r"<tr>(.*?)</tr>", table)
    ]


def test_the_page_has_gates_methods_and_where_they_come_from():
    html = page()
    assert "1 of 2 gates hold" in html and "SA &lt;knows&gt;" in html and "python -m jobs.science" in html
    assert html.count("DOES NOT HOLD</td>") == 1 and html.count(">holds</td>") == 1
    assert "0.900 ± 0.001 (n=2)" in html and "<code>one_worker-0</code>" in html
    assert html.count("<td>one_worker</td>") == 1  # among the runs, not among the methods
    assert "http" not in html  # needs nothing else


def test_a_value_stands_with_its_interval_its_questions_and_every_seed():
    """Wilson's interval of 720 hits in 800, by hand: (0.9 + z²/1600 ± z sqrt(0.09/800 + z²/4/800²)) / (1 + z²/800)."""
    names, sa, wo_joint, chance = rows("Directions that training has seen")
    order = names.index("order")
    assert sa[order] == "0.900 ± 0.001 (n=2) 0.877 to 0.919 N=800; 0.901 0.899"
    assert sa[0] == "sa 1667 child, 333 parent"
    assert wo_joint[names.index("clip40")].endswith("N=400; 0.361 − sa: -0.290 (-0.290 to -0.290)"), "seed 0 alone"
    assert wo_joint[0] == "wo_joint 1667 child, 333 parent after 1000 child"
    assert chance[1] == "0.025" and chance[order] == "0.500"


def test_leak_checks_stand_beside_chance():
    _, scene, words = rows("Leak checks")
    assert scene == ["seen", "scene/easy", "0.200 ± 0.014 (n=2)", "0.200"]
    assert words == ["seen", "words/order", "0.500 ± 0.000 (n=2)", "0.500"]


def test_every_run_has_its_updates_and_the_hash_of_its_data():
    _, *runs = rows("Where the figures come from")
    assert runs[2] == ["sa", "1", "1667 child, 333 parent", "world1", "sa-1", "abc"]


def test_the_text_ends_with_the_gates():
    lines = text_tables(GATES, RUNS, CHANCE).splitlines()
    assert lines[0].split()[0] == "seen:" and "0.900 ± 0.001 (n=2)" in lines[1]
    assert lines[3].split()[:2] == ["chance", "0.025"]
    assert lines[-2].endswith("0.900     holds") and lines[-1].endswith("0.300     DOES NOT HOLD")
