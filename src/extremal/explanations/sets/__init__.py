"""Several regions of one input in one answer: sufficient, necessary and both; a class rather than another one."""
