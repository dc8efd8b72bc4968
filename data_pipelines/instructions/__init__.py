"""Documents -> questions with answers, and preferences, all of text that stands in a document."""
