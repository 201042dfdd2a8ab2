"""What end-to-end tests share: real archives, and the real server as a process."""
