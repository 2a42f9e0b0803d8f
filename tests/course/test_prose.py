"""A result quoted in prose is printed by a cell beside it, published, or arithmetic."""

import re

import pytest
from notebook_helpers import NOTEBOOKS, ROOT, cells

from serplib.experiments.tables import PUBLISHED, corrected

# A share, a count of points of accuracy or nats, or anything with decimals.
NUMBER = re.compile(
    r"\d[\d,]*(?:\.\d+)?(?=\s*(?:%|per cent|nats|points? (?:of accuracy|better|worse)))|\d+\.\d+"
)
# Not results: code, formulas, addresses of links, and references to sections and figures.
ASIDE = re.compile(
    r"```.*?```|\$\$.*?\$\$|\$[^$]*\$|`[^`]*`"
    r"|[Ss]ections? \d[\d.]*(?:(?:,| and| to) \d\.[\d.]*)*|\(\d\.\d(?:\.\d)?\)|[Ff]igure \w+\.\d+"
    r"|\| \d\.\d(?:\.\d)?(?:, \d\.\d(?:\.\d)?)* \||\]\(http[^)\s]*\)",
    re.DOTALL,
)
RESULTS_TABLE = re.compile(r"<!-- results .*?<!-- end of [^>]*>", re.DOTALL)
PAPER = {str(value) for value in PUBLISHED.values()}
PAPER |= {f"{corrected(value):.2f}" for value in PUBLISHED.values()}
PAPER |= {f"{PUBLISHED['table1/serp'] - PUBLISHED['table1/scratch']:.2f}"}
PAPER |= {f"{PUBLISHED['table1/scratch'] - PUBLISHED['table1/vasp']:.2f}"}
# Numbers that follow from arithmetic in the sentence, settings, and invented examples.
ARITHMETIC = {
    "00_welcome": {"3.2", "0.5"},  # a section; the paper's gains, rounded
    "02_perturbation": {"0.002"},  # a loss said to tell nothing
    "03_tokenization": {"45"},  # the size at which patches are drawn
    "04_losses_and_baselines": {"0.693", "0.25", "0.75", "67"},  # ln 2; class weights; 1 - prior
    "05_serp_pointnet": {"94", "16.7"},  # 1024 of 1088 columns; multiplications saved
    # e^2; the toy's heights, their mean, two parts of a difference; learning rates
    "06_serp_transformer": {"7.4", "1.40", "1.00", "1.20", "0.20", "0.11", "0.003", "0.001"},
    "07_vasp": {"0.75"},  # the border between codes at 0 and 1.5
    "09_finetuning": {"0.80", "0.67", "0.83", "0.03"},  # 4/5, 4/6, 2.5/3; the paper's sigma
    # mask ratios; a section; the limit notes.LEARNT
    "10_leakage_and_beyond": {"60", "90", "3.3", "0.9"},
    # 2^-7, bfloat16 near 1; a step, a loss of notebook 04; 2^-8 in per cent; twice 0.81
    "A_engineering": {"0.008", "0.001", "0.4", "1.6"},
    "B_bottlenecks": {"0.08"},  # three times the p value in the table
    # by hand: shares of three, four and five shapes, one probability; 1 - 2468/2560
    "C_protocol": {"80", "50", "67", "3.6", "0.8", "92", "0.99", "0.01", "0.2", "95"},
    # 100/2468; 4/7; power without t(0.8); 2 x (64 + 128 + 1024) and 5 x 3 x 96 features
    "11_results": {"0.04", "57.14", "50", "2,432", "1,440"},
}


def numbers(text: str) -> set[str]:
    """The numbers of a prose cell that read like results."""
    return set(NUMBER.findall(ASIDE.sub(" ", text)))


def printed(name: str) -> str:
    """What the cells of a notebook say and print, pictures aside."""
    said = []
    for cell in cells(name, "code"):
        said.append(cell.source)
        for output in cell.outputs:
            said.append(output.get("text", ""))
            said += [v for k, v in output.get("data", {}).items() if k.startswith("text/")]
    return "\n".join(said)


def typed_in(text: str, shown: str) -> set[str]:
    """The numbers of a text that no output shows and the paper does not report."""
    shown = set(re.findall(r"\d[\d,]*(?:\.\d+)?", shown))
    return {number for number in numbers(text) if number not in shown | PAPER}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_numbers_in_prose_are_printed_published_or_arithmetic(name):
    shown = printed(name)
    found = set().union(*(typed_in(cell.source, shown) for cell in cells(name, "markdown")))
    unknown = found - ARITHMETIC.get(name, set())
    assert not unknown, "print it from a record or in a cell, or say in ARITHMETIC why it is none"


@pytest.mark.parametrize(
    ("text", "caught"),
    [
        ("SeRP gets 91.3 % after fine-tuning.", {"91.3"}),
        ("It gains 4 points of accuracy.", {"4"}),
        ("The loss falls to 0.0012.", {"0.0012"}),
        ("See section 3.3.1, figure 8.5 and $0.37$; `sigma=0.05`.", set()),
        ("Table 1 says 88.48, and 89.1 for SeRP.", set()),
        ("Of the points 33 % moved.", set()),  # printed below
    ],
)
def test_a_planted_result_is_caught(text, caught):
    assert typed_in(text, "touched: 33 % of 1,024") == caught


@pytest.mark.parametrize("page", ["README.md", "notebooks/experiments/results/README.md"])
def test_pages_quote_results_from_their_tables_only(page):
    """The tables of the results page are compared with the records in test_readme."""
    text = (ROOT / page).read_text(encoding="utf-8")
    tables = RESULTS_TABLE.findall(text) + RESULTS_TABLE.findall(
        (ROOT / "notebooks/experiments/results/README.md").read_text(encoding="utf-8")
    )
    prose = RESULTS_TABLE.sub("", text)
    assert len(tables) > 1
    settings = {"2209.06067", "0.03", "0.1", "0.2", "3.11"}  # arXiv, sigma, Python
    sections = set(re.findall(r"\b[34]\.\d\b", prose))
    assert typed_in(prose, "\n".join(tables)) <= settings | sections
