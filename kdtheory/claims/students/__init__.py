"""Chapter 09 students: what stored runs of student experiments say, hypothesis by hypothesis."""
