"""Opens and writes files of any kind, here and elsewhere: storage, lines of text, images, videos, output folders."""
