"""Models of the check-ups as time series: the paper's Table A1 compares four of them on zero-padded histories."""
