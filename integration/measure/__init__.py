"""What `integration/bench` measures, one module for each kind of thing.

    host     fresh file systems, what is installed and built
    usage    a command's time, processor, memory and bytes written
    images   what is imported and pulled
    peers    daemons and commands, each as its users run it
    rounds   who is run when
    report   tables, marks, plots, a comparison with an earlier run
    imports, pulls, rates, starts, removals, boots, memory, micro   the verbs
    command  what the command line says
"""
