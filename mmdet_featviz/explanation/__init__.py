"""Explanations: which parts of an image the score or the box of one detection rests on."""
