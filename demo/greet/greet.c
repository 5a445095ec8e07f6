#include <stdio.h>

int main(void) {
	puts("Hello from the first build.");
	return 0;
}
