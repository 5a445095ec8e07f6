#include <openssl/crypto.h>
#include <stdio.h>

/* What the bench's "one source line" changes. */
static const char revision[] = "revision 0";

int main(void) {
	printf("greet %s, %s\n", revision, OpenSSL_version(OPENSSL_VERSION));
	return 0;
}
