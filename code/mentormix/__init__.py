"""MentorMix: training on noisy labels with a MentorNet and mixup."""
