"""Pictures as SVG text. Colours are classes of the page's style sheet, for light and for dark."""
