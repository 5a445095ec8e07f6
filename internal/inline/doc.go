// Package inline keeps larder's records in the image that a build makes (--cache-to type=inline), and tells apart what
// --cache-from may find under a name: a larder catalog, an image with or without such records, what BuildKit wrote.
//
// The records lie in the image's config, under Field. They name the image's own layers, so that the image is all that a registry
// has to keep. They carry no trees and no signature: who can push the image decides what they say.
package inline
