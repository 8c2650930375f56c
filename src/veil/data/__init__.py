"""Data: layouts read what users have, packs hold it decoded, splits keep people apart."""
