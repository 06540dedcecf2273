"""The data sets that training reads, one file each."""
