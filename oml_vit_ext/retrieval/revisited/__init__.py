"""The protocol of Revisited Oxford and Paris."""
