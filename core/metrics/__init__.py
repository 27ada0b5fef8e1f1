"""What judges an answer; knows no torch, so that the judge does not know the judged."""
