"""What Office files hold beside plain paragraphs: equations, and content that only newer programs show."""

import io

import docx
import pptx
from docx.oxml import parse_xml
from lxml import etree
from pptx.util import Inches

from tests.test_read import read_one

_MATH = "http://schemas.openxmlformats.org/officeDocument/2006/math"
_MC = "http://schemas.openxmlformats.org/markup-compatibility/2006"


def test_the_characters_of_an_equation_are_read() -> None:
    document = docx.Document()
    paragraph = document.add_paragraph("The limit is ")
    paragraph._p.append(parse_xml(f'<m:oMath xmlns:m="{_MATH}"><m:r><m:t>a = 4.2 b</m:t></m:r></m:oMath>'))
    paragraph.add_run(" at most.")
    buffer = io.BytesIO()
    document.save(buffer)
    assert read_one(buffer.getvalue(), "a.docx").text == "The limit is a = 4.2 b at most."


def test_shapes_for_newer_programs_are_read_once() -> None:
    presentation = pptx.Presentation()
    shapes = presentation.slides.add_slide(presentation.slide_layouts[6]).shapes
    for branches in (("new", "old"), ("", "only old")):
        alternative = etree.SubElement(shapes._spTree, f"{{{_MC}}}AlternateContent")
        for name, words in zip(("Choice", "Fallback"), branches, strict=True):
            branch = etree.SubElement(alternative, f"{{{_MC}}}{name}")
            if words:
                box = shapes.add_textbox(Inches(1), Inches(1), Inches(2), Inches(1))
                box.text_frame.text = words
                branch.append(box._element)
    shapes.add_textbox(Inches(1), Inches(1), Inches(2), Inches(1)).text_frame.text = "last"
    buffer = io.BytesIO()
    presentation.save(buffer)
    assert read_one(buffer.getvalue(), "a.pptx").text == "new\n\nonly old\n\nlast"
