"""What recipes share: examples with a mask of the steps that count, losses on them, figures, a picture."""
