"""Who makes the outputs safe when the trainer cannot: a process that waits for its end.

    trainer                                       guardian, a process of its own, in a session of its own
    -------                                       ---------------------------------------------------
    owns the instruments                          shares their locks: the open files are inherited
    {"pid", "states", "silence_s", ...}\\n    ->
                                              <-  ready\\n                    only now an output may go on
    \\n, \\n, \\n ...  (beats, from every use of a wire)
    done\\n                                    ->  ends, touches nothing     the trainer verified safety itself
    unsafe\\n                                  ->  ends, touches nothing     the trainer tried and could not; that is on record

    end of file, or the trainer's end         makes safe at once, over wires of its own
    no beat for silence_s                     kills the trainer (it must not switch anything on again), makes safe

It tries until its patience is over, writes all it does to guardian.jsonl in the run folder and to stderr, and leaves what it
could not verify on record: in guardian.jsonl and in the lock file of the instrument. Whoever opens that instrument next, or
resumes that run, makes it safe first.

`charge` is what it is told, `record` what it writes, `process` the process, `guard` the trainer's end. The first three import
no torch and no pydantic: the process is ready in a fraction of a second.
"""
