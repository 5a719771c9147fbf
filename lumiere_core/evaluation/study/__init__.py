"""The paper's user study (appendix B.1): a page for raters, and what their answers say."""
