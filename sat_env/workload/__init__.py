"""What is run: model profiles and the jobs that ask for them."""
