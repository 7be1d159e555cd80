r"""The guardian: a process that waits for the end of the trainer, and then makes the outputs safe.

    trainer                                       guardian, a process of its own, in a session of its own
    -------                                       ---------------------------------------------------
    owns the instruments                          shares their locks: the open files are inherited
    {"pid", "states", "silence_s", ...}\n    ->
                                              <-  ready\n                    only now an output may go on
    \n, \n, \n ...  (beats, from every use of a wire)
    ?\n                                       ->
                                              <-  !\n                      no sign of life, but of the guardian's; see guard
    done\n                                    ->  ends, touches nothing     the trainer verified safety itself
    unsafe\n                                  ->  ends, touches nothing     the trainer tried and could not; that is on record

    end of file, or the trainer's end         makes safe at once, over wires of its own
    no beat for silence_s                     kills the trainer (it must not switch anything on again), makes safe

It tries until its patience is over. What it does is written to guardian.jsonl in the run folder and to stderr, after the first
try; what it could not verify stays on record there and in the lock file of the instrument. Whoever opens that instrument next,
or resumes that run, makes it safe first, as the lock file says. guardian.jsonl is for people: nothing that it says is sent.

`charge` is what it is told, `record` what it writes, `secure` what it does, `process` the process, `guard` the trainer's end.
All but the last import no torch and no pydantic: the process is ready in a fraction of a second.
"""
