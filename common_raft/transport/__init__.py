"""How nodes reach each other: frames (`codec`), what is said besides Raft (`messages`), and the links (`asyncio`)."""
