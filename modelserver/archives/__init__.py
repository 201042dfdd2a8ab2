"""Model archives: from the url of a registration to a verified model directory. Everything here blocks."""
