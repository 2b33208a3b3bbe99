"""Whatever rolls out to answer a question: what does steering do, which of two agents is better?"""
