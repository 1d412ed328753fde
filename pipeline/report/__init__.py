"""The HTML page that a person looks at after a build."""
