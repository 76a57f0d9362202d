"""The shared page: texts are escaped, a missing value is an error, names break where they may."""

import pytest
from jinja2 import UndefinedError

from pipelines.evaluation.page import breakable, page_template

TEMPLATE = """{% extends "page.html.j2" %}
{% block title %}{{ name }}{% endblock %}
{% block body %}<p>{{ value|cell }} {{ name|breakable }}</p>{% endblock %}"""


def test_a_page_of_another_folder_has_the_style_and_escapes_texts(tmp_path):
    (tmp_path / "own.html.j2").write_text(TEMPLATE)
    page = page_template("own.html.j2", tmp_path).render(name="<x>/y", value=-0.0001)
    assert page.startswith("<!doctype html>") and page.endswith("</html>\n")
    assert "<title>&lt;x&gt;/y</title>" in page and "<p>0.000 &lt;x&gt;/<wbr>y</p>" in page
    assert "light dark" in page and "<style>" in page
    with pytest.raises(UndefinedError):
        page_template("own.html.j2", tmp_path).render(name="x")


def test_names_break_between_their_words_and_stay_escaped():
    assert breakable("val/<x>/y_z") == "val/<wbr>&lt;x&gt;/<wbr>y_<wbr>z"
