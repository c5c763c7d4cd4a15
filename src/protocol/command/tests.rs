//! What users and back-ends may write, and what each mistake is called.
