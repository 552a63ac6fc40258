"""Images and labels: archives, folders and label files -> noisy TFRecords -> batches."""
