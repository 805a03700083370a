"""Makes one self-contained HTML file that tells how a run went."""
