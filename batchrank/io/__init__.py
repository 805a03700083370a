"""Files of any kind, here and elsewhere: storage, lines of text, images and videos, folders written by rename."""
