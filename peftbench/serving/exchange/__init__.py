"""Methods in other libraries' terms, both ways: Hugging Face `peft` and AdapterHub's `adapters`."""
