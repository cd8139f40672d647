"""What Office files hold beside plain paragraphs: equations, and content that only newer programs show."""

import io

import docx
from docx.oxml import parse_xml

from tests.test_read import read_one

_MATH = "http://schemas.openxmlformats.org/officeDocument/2006/math"


def test_the_characters_of_an_equation_are_read() -> None:
    document = docx.Document()
    paragraph = document.add_paragraph("The limit is ")
    paragraph._p.append(parse_xml(f'<m:oMath xmlns:m="{_MATH}"><m:r><m:t>a = 4.2 b</m:t></m:r></m:oMath>'))
    paragraph.add_run(" at most.")
    buffer = io.BytesIO()
    document.save(buffer)
    assert read_one(buffer.getvalue(), "a.docx").text == "The limit is a = 4.2 b at most."
