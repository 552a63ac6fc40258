"""Archives, image folders and label files -> noisy TFRecords -> batches."""
