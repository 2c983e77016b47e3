// Gives the precompiled header a library to be made with.
