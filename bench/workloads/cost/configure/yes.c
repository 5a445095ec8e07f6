#include "config.h"
#include <stdio.h>

/* What is configured: something has to be. */
int main(void) {
	while (puts("y") >= 0)
		;
	return 1;
}
