"""Programs that meet a defect of a device or a runtime, each beside one that does not."""
