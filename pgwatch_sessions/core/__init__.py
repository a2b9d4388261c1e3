"""The pure part: values, history, detection. Only the standard library; time is an argument."""
