package generation

import "os"

// soak asks for the long part of tests that have one.
var soak = os.Getenv("LARDER_SOAK") != ""
