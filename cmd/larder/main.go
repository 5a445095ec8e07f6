// Command larder builds container images on machines that remember nothing. Everything is in internal/cli.
package main

import (
	"os"

	"larder/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
