"""A device that nobody else can open (vendor SDK, DLL, DAQ card, your own class), owned by a process that makes it safe.

    trainer                 host, a session of its own                worker
    -------                 --------------------------                ------
    Hosted  <-- gRPC -->    Server -- Supervisor    <-- socket -->    the device
                            runs no code of the device's              its code may hang or crash

    the trainer ends, or is silent      the worker makes safe; a worker that does not answer is killed, a fresh one opens the
                                        device again and makes safe. The host ends: 3 safe, 4 not known
    a call is longer than deadline_s    worker killed, a fresh one makes safe, the call fails: LinkTimeout
    the worker ends                     a fresh one makes safe at once, the call fails: Disconnected
    the host ends                       the worker makes safe by itself, and ends

`client` is the trainer's end (`hosted`, `connected`), `device.proto` the messages between trainer and host, `frames` those
between host and worker. `process` waits for the trainer's end, `server` answers calls, `supervisor` keeps one worker alive,
`starter` starts it (`forks`, or `spawned` where no process can be forked), `workers` asks it, `worker` owns the device. `keys`
makes what a trainer on another computer needs.
"""
